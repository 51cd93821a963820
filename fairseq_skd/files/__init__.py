"""Read and write manifests, labels, dictionaries and audio. All rooms above may import these."""
