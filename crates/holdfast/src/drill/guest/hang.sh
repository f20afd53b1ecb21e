# Stops everything in the guest but its kernel and init, the agent and the watchdog's feeder included.
kill -STOP -1
