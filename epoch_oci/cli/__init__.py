"""The command line: a parser, settings, rendering, and one short function a verb."""
