"""Evaluation: which cases are judged, features of images, and scores as functions of arrays.

Nothing is imported here: each module brings its own library.
"""
