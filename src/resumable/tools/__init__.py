"""Looking and steering: the command line, `measure`, `check`, `repair`. Imported when asked for."""
