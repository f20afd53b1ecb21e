# Stops the application's main process: the kernel still takes connections for it, nobody answers.
find_app
kill -STOP "$main" || fail "$name cannot be stopped"
