"""Reading and writing files: manifests, labels, dictionaries, audio; below everything else."""
