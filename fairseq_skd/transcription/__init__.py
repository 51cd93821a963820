"""Audio to words with times: blocks of audio, windows, alignment of a text, files to write."""
