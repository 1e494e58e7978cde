"""Figures drawn with matplotlib. Imported only when something is drawn: matplotlib takes long to import."""
