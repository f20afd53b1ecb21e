# Whether it was restarted meanwhile or is gone: nothing more is to be done then.
(find_app && kill -CONT "$main")
exit 0
