"""The configuration: its types, how a command line becomes one, how a mistake in it is told. No torch below here."""
