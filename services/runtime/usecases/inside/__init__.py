"""What goes on inside instances on somebody's behalf: commands, files, and what guests ask of themselves."""
