"""MeshFlow: the service you put between untrusted tasks and language models."""

__version__ = "0.1.0"
