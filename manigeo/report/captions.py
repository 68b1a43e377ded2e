"""Captions: what a figure shows, and how to read it; a figure without one is described by its function's docstring."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Caption:
    """``seen``: what is drawn; ``read``: what to look for."""

    title: str
    seen: str
    read: str


CAPTIONS = {
    "geometry": Caption(
        "Geometry of the manifolds",
        "Capacity, radius, dimension and centre correlation at every layer; a column a checkpoint, a line a kind of "
        "examples. Bands are one standard error over classes. The dotted line is the floor of capacity, where points "
        "without structure lie; hollow points are layers too narrow to separate the manifolds.",
        "Where permuted examples leave the floor, their permuted labels have become separable. Look whether they do so "
        "at the end of training and not at the best epoch, whether radius or dimension falls there, and whether restored "
        "examples (the same images by their true labels) lose capacity.",
    ),
    "estimators": Caption(
        "Three estimates of capacity",
        "Mean-field, joint and simulated capacity at every layer; a column a kind, a row a checkpoint. Bars are one "
        "standard error; hollow points are layers too narrow to separate the manifolds. Dotted lines are the floors, where "
        "each estimator sees points without structure.",
        "Where the curves are one, the assumptions of mean field hold. Where they part, simulation is the judge.",
    ),
    "sweep": Caption(
        "Capacity against the number of examples",
        "Capacity against M, the examples per class; a panel a layer, a line a kind. The dotted line is the floor, "
        "where points without structure lie.",
        "Numbers at different M do not compare. Kinds are told apart at an M where their lines are.",
    ),
    "weights": Caption(
        "How far the layers have moved",
        "Rotation from the initial weights, angle since the checkpoint before, and relative distance, against the epoch; "
        "a line a layer.",
        "Where a layer hardly turns, training has changed it little. One that turns may have learned what generalizes "
        "as well as what was memorized: movement alone does not tell them apart.",
    ),
    "correlation": Caption(
        "Movement and the generalization gap",
        "Movement of each layer against the generalization gap; a point a run, Spearman's coefficient with its interval "
        "above each panel.",
        "An interval that holds zero says that these runs do not decide. A correlation over runs is no cause.",
    ),
    "separability": Caption(
        "How well classes come apart",
        "Linear probe, nearest neighbours, clusters and class means at every layer; a row a measure, a column a "
        "checkpoint, a line a kind of examples. Bands are 95 % over classes; dotted lines are chance, dashed ones "
        "ceilings; stars are the best layers.",
        "A probe is scored on examples that it was not trained on: permuted labels can be read from a layer only where "
        "their images are told from one another by them. Restored and test say what of the true labels is left.",
    ),
    "progress": Caption(
        "Separability over training",
        "Agreement of clusters with classes, and probe accuracy, against the epoch; a column a kind, a line a layer, "
        "dark to bright by depth.",
        "Look whether layers part early or late, and whether what permuted examples gain is lost by restored ones.",
    ),
    "transfer": Caption(
        "Probes of one kind on another",
        "Accuracy of the probe of each kind (row) on every kind (column), a map a layer. On the diagonal are examples "
        "that a probe has not seen.",
        "Where the probe of unpermuted examples reads restored ones, the layer still holds the true class of images "
        "whose labels were permuted.",
    ),
    "memorization": Caption(
        "Permuted labels, by probe and by capacity",
        "Probe accuracy on permuted labels above, their capacity below, at every layer; on the right one against the "
        "other, a point a layer. Bands are 95 % over classes; dotted lines are chance, and the floor of capacity.",
        "Two ways to the same question: where both rise, permuted labels have become separable and can be read.",
    ),
    "final-reset": Caption(
        "The last layers reset",
        "Accuracy of every kind after the last k layers were reset; a panel for what they were set to, dashed after they "
        "were trained again for some steps. A circle is what validation data choose.",
        "Where test accuracy rises above that at k = 0, the reset regularizes; what it costs is in the other lines.",
    ),
    "utilisation": Caption(
        "What layers up to each are enough for",
        "Accuracy of a linear probe on the layers up to each, for every kind; dotted lines are the network itself.",
        "Where a line reaches its dotted one, the layers after it are not needed for that kind.",
    ),
    "criticality": Caption(
        "Criticality of modules",
        "How far each layer may go towards its initial values, and under how much noise, before the training loss rises "
        "by a bound; a line a bound, logarithmic. Layers of criticality zero are not drawn.",
        "The higher, the more the network depends on just these weights.",
    ),
    "rewind": Caption(
        "Layers set back to an earlier epoch",
        "Accuracy of every kind after layers were set back, without training; a panel a sweep. Bands are one standard "
        "error over examples; the dashed line is the test accuracy of the whole network at that epoch; the circle is "
        "what validation data choose.",
        "Where permuted accuracy falls while unpermuted stays, the network needs these layers for what it memorized. "
        "Where test accuracy rises, setting them back undoes its cost.",
    ),
    "reinit": Caption(
        "One layer set to something else",
        "Accuracy of every kind with one layer (row) set to a fresh draw, to zero or to a checkpoint (column), the "
        "others as trained; the last column is the trained network.",
        "A layer is critical for a kind where its row is dark, and robust where it is as bright as the last column.",
    ),
    "gradients": Caption(
        "Parts of the gradient",
        "Norms of the part of the gradient that knows the labels and of the part that does not, and the cosine between "
        "kinds, over epochs; a column a layer, a line a kind.",
        "Examples that agree on where to push a layer have a large label-dependent part; those that contradict one "
        "another have a small one. Look when, and at which layers, that of permuted examples comes close to the others'.",
    ),
    "gradient-sizes": Caption(
        "The gradient against the number of examples",
        "Norms of the two parts of the gradient against the number of examples, both logarithmic; a column a layer, a "
        "line a kind. The dashed line falls as chance does.",
        "A line that falls with the dashed one is noise that averages out; a level one is a direction that examples share.",
    ),
    "localization": Caption(
        "Where each method finds memorization",
        "The share of each layer in what a method sees of memorization, with 95 % intervals; the dashed line is the "
        "centre of mass with its own. Grey where a method says that there is not enough evidence.",
        "Look first whether the methods agree on the depth; where they do not, they measure different things.",
    ),
}
