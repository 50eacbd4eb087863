"""The embedded voice: text front end, acoustic model and vocoder behind `Speaker`."""
