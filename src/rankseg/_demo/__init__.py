"""The example and the network of ``rankseg demo``."""
