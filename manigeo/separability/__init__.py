"""How well classes come apart in a layer: arrays in, numbers out.

Points are rows of an array, and ``labels`` name their classes, in any way (:mod:`manigeo.inputs`); the modules are one idea
each:

- :mod:`~manigeo.separability.probe`: what a linear classifier gets right, of examples it has not seen
- :mod:`~manigeo.separability.neighbours`: how many of the nearest points are of the same class
- :mod:`~manigeo.separability.clusters`: what clustering without labels finds again of them
- :mod:`~manigeo.separability.means`: how far class means are apart, and what the nearest mean gets right
- :mod:`~manigeo.separability.margins`: whether a hyperplane tells classes apart, and by which margin
- :mod:`~manigeo.separability.best`: which layer is best, and whether measures and runs agree on it
- :mod:`~manigeo.separability.coordinates`: points of more features than there are points, in fewer coordinates
- :mod:`~manigeo.separability.scores`: from scores of examples to those of classes, halves and intervals
"""
