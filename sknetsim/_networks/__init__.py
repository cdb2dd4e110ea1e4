"""The user's network and its inputs: accepted, evaluated without a trace, identified and saved."""
