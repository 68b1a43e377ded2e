"""Separability of the classes in a layer: arrays in, numbers out.

Points are rows of an array, and ``labels`` name their classes, in any way (:mod:`manigeo.inputs`); the modules are one idea
each:

- :mod:`~manigeo.separability.probe`: accuracy of a linear classifier on examples it has not seen
- :mod:`~manigeo.separability.logistic`: the classifier's optimum, by a preconditioned quasi-Newton method
- :mod:`~manigeo.separability.neighbours`: share of the nearest points that are of the same class
- :mod:`~manigeo.separability.clusters`: agreement of the classes with clusters found without labels
- :mod:`~manigeo.separability.units`: how much more a unit responds to one example than to the others
- :mod:`~manigeo.separability.means`: distances of class means, and accuracy of the nearest mean
- :mod:`~manigeo.separability.fuzziness`: spread within classes over that between them (law of separation, NC1)
- :mod:`~manigeo.separability.latent`: what classifiers of training labels tell of other examples
- :mod:`~manigeo.separability.margins`: whether a hyperplane tells classes apart, and by which margin
- :mod:`~manigeo.separability.best`: which layer is best, and whether measures and runs agree on it
- :mod:`~manigeo.separability.coordinates`: points of more features than there are points, in fewer coordinates
- :mod:`~manigeo.separability.scores`: scores of classes and halves from those of examples, and intervals
"""
