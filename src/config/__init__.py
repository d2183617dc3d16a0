"""The configuration: its types, how a command line becomes one, and how an error in it is reported. No torch."""
