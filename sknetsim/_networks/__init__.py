"""The user's network and data: validation, isolated evaluation, fingerprints, pickles, memory."""
