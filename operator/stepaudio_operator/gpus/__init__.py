"""What cards hold, what models need of them, and what pods measure. Pure."""
