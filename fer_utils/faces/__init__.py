"""Faces: found in photos, aligned, and read by a network that recognises people."""
