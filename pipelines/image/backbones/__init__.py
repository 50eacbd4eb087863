"""One file per family of image models: what its network is told, and how it is called."""
