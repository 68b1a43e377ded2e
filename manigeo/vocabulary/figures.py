"""Words of every figure. To add a figure, add its line."""

from typing import NamedTuple


class Figure(NamedTuple):
    """Words of a figure: ``line`` in the help of manigeo plot; title, what is ``seen`` and how to ``read`` it."""

    line: str
    title: str
    seen: str
    read: str


# in the order in which they are drawn, the main one first
FIGURES = {
    "geometry": Figure(
        "capacity, radius, dimension and centre correlation against depth, one column per checkpoint",
        "Geometry of the manifolds",
        "Capacity, radius, dimension and centre correlation at every layer; one column per checkpoint, one line per kind of "
        "examples. Bands are one standard error over classes. The dotted line is the floor of capacity, where points "
        "without structure lie; hollow points are layers too narrow to separate the manifolds.",
        "Where permuted examples leave the floor, their permuted labels have become separable. Check whether they do so "
        "at the end of training and not before memorization, whether radius or dimension falls there, and whether restored "
        "examples (the same images by their true labels) lose capacity.",
    ),
    "estimators": Figure(
        "mean-field, joint and simulated capacity against depth, one column per kind (--joint, --simulate)",
        "Three estimates of capacity",
        "Mean-field, joint and simulated capacity at every layer; one column per kind, one row per checkpoint. Bars are one "
        "standard error; hollow points are layers too narrow to separate the manifolds. Dotted lines are the floors, where "
        "each estimator sees points without structure.",
        "Where the curves coincide, the assumptions of mean field hold. Where they part, rely on simulation.",
    ),
    "sweep": Figure(
        "capacity against the number of examples per class, one panel per layer (--sweep-examples)",
        "Capacity against the number of examples",
        "Capacity against M, the examples per class; one panel per layer, one line per kind. The dotted line is the floor, "
        "where points without structure lie.",
        "Numbers at different M do not compare. Kinds are told apart at an M where their lines are.",
    ),
    "weights": Figure(
        "rotation, angle per step and distance of each layer against the epoch (manigeo weights)",
        "How far the layers have moved",
        "Rotation from the initial weights, angle since the checkpoint before, and relative distance, against the epoch; "
        "one line per layer.",
        "Where a layer hardly turns, training has changed it little. One that turns may have learned what generalizes "
        "as well as what was memorized: movement alone does not tell them apart.",
    ),
    "correlation": Figure(
        "movement of each layer against the generalization gap, one point per run (manigeo correlate)",
        "Movement and the generalization gap",
        "Movement of each layer against the generalization gap; one point per run, Spearman's coefficient with its interval "
        "above each panel.",
        "Where the interval includes zero, these runs do not decide. A correlation over runs does not show a cause.",
    ),
    "separability": Figure(
        "probes, neighbours, clusters, margins against depth, one column per checkpoint (manigeo separability)",
        "How well classes come apart",
        "Linear probe, nearest neighbours, clusters and class means at every layer; one row per measure, one column per "
        "checkpoint, one line per kind of examples. Bands are 95 % over classes; dotted lines are chance, dashed ones "
        "ceilings; stars are the best layers.",
        "A probe is scored on examples that it was not trained on: permuted labels can be read from a layer only where "
        "it tells their images apart by them. Restored and test show what is left of the true labels.",
    ),
    "fuzziness": Figure(
        "separation fuzziness against depth, with the line of the law of separation, one column per checkpoint",
        "The law of separation",
        "Separation fuzziness D, the spread within classes over that between them, at every layer, logarithmic; one column "
        "per checkpoint, one line per kind. Bands are 95 % over classes; dashed is the least-squares line of log D, with "
        "its Pearson r in the legend. Layers with no more features than classes, as outputs have, are left out.",
        "Where log D falls along its line (r near -1), every layer separates the classes by the same factor. A kind that "
        "leaves its line has layers that do not work on it.",
    ),
    "latent": Figure(
        "classifiers of training labels scored on test examples, beside the network, against depth",
        "Latent generalization",
        "Accuracy on test examples of classifiers that were fitted at each layer on the training set, permuted labels "
        "included; one column per checkpoint. Bands are 95 % over classes; dashed is the network itself, dotted is chance.",
        "Where a line is above the dashed one, the layer still tells apart by the labels of the training set what the "
        "network's own outputs no longer do.",
    ),
    "progress": Figure(
        "g and probe accuracy of every layer over epochs, where there are several",
        "Separability over training",
        "Agreement of clusters with classes, and probe accuracy, against the epoch; one column per kind, one line per "
        "layer, dark to bright by depth.",
        "Check whether layers part early or late, and whether what permuted examples gain is lost by restored ones.",
    ),
    "transfer": Figure(
        "probes of each kind scored on every kind, one heat map per layer",
        "Probes of one kind on another",
        "Accuracy of the probe of each kind (row) on every kind (column), one map per layer. On the diagonal are examples "
        "that a probe has not seen.",
        "Where the probe of unpermuted examples reads restored ones, the layer still holds the true class of images "
        "whose labels were permuted.",
    ),
    "memorization": Figure(
        "permuted labels: probe accuracy and capacity against depth (tables of separability and capacity)",
        "Permuted labels, by probe and by capacity",
        "Probe accuracy on permuted labels above, their capacity below, at every layer; on the right one against the "
        "other, one point per layer. Bands are 95 % over classes; dotted lines are chance, and the floor of capacity.",
        "Two measures of the same: where both rise, permuted labels have become separable and can be read.",
    ),
    "similarity": Figure(
        "CKA and Procrustes distance of layers in two checkpoints or networks, against depth (manigeo similarity)",
        "Similarity of two representations",
        "Linear CKA without bias, and angular Procrustes distance, of every layer in two files of activations of the same "
        "examples; one column per pair, one line per kind. Bands are 95 % over examples.",
        "Where permuted examples fall below the others, training has moved them more than it has moved what was learned of "
        "the classes. Numbers of seeds say how much layers differ without a reason: compare those of epochs with them.",
    ),
    "rewind": Figure(
        "accuracy of every kind after layers were rewound, one panel per sweep (manigeo rewind)",
        "Layers set back to an earlier epoch",
        "Accuracy of every kind after layers were set back, without training; one panel per sweep. Bands are one standard "
        "error over examples; the dashed line is the test accuracy of the whole network at that epoch; the circle is "
        "the choice of validation data.",
        "Where permuted accuracy falls while unpermuted stays, the network needs these layers for what it memorized. "
        "Where test accuracy rises, setting them back undoes the cost of memorization.",
    ),
    "reinit": Figure(
        "accuracy with one layer re-initialised, drawn again or zero: one heat map per kind (manigeo reinit)",
        "One layer set to something else",
        "Accuracy of every kind with one layer (row) set to a fresh draw, to zero or to a checkpoint (column), the "
        "others as trained; the last column is the trained network.",
        "A layer is critical for a kind where its row is dark, and robust where it is as bright as the last column.",
    ),
    "channels": Figure(
        "fewest channels that flip an example, and the layers that they lie in (manigeo channels)",
        "Fewest channels that flip an example",
        "Left, the mean number of channels that are removed, most important first, until an example has another answer, "
        "with its 95 % interval, by kind; an arrow marks a lower bound. Right, the share of these channels in each layer, "
        "with one standard error over examples; the dotted line is the layer's share of all channels.",
        "Where permuted examples take fewer channels than unpermuted ones, few channels memorize them. Check in which "
        "layers these lie above the dotted line.",
    ),
    "final-reset": Figure(
        "accuracy after the last layers were reset, and trained again (manigeo reinit --final-reset)",
        "The last layers reset",
        "Accuracy of every kind after the last k layers were reset; one panel per value they were set to, dashed after they "
        "were trained again for some steps. A circle is the choice of validation data.",
        "Where test accuracy rises above that at k = 0, the reset regularizes; the other lines show what it costs.",
    ),
    "lens": Figure(
        "what the network's own head makes of each block (manigeo lens)",
        "Answers read out of each block",
        "Share of the examples of each kind that the head of the network answers by their label when it is given the output "
        "of a block in place of the last one's; of a text also the share of suffixes that are answered token by token.",
        "Where the line of memorized examples rises, the answer to them is there to be read. The last block is the network "
        "itself.",
    ),
    "utilisation": Figure(
        "a linear probe on the layers up to each (manigeo reinit --utilisation)",
        "What layers up to each are enough for",
        "Accuracy of a linear probe on the layers up to each, for every kind; dotted lines are the network itself.",
        "Where a line reaches its dotted one, the layers after it are not needed for that kind.",
    ),
    "criticality": Figure(
        "module criticality of every layer (manigeo reinit --criticality)",
        "Criticality of modules",
        "How far each layer may go towards its initial values, and under how much noise, before the training loss rises "
        "by a bound; one line per bound, logarithmic. Layers of criticality zero are not drawn.",
        "The higher, the more the network depends on just these weights.",
    ),
    "localization": Figure(
        "the memorization profile of every method (manigeo localize)",
        "Where each method finds memorization",
        "The share of each layer in what a method sees of memorization, with 95 % intervals; the dashed line is the "
        "centre of mass with its own. Grey where a method does not have enough evidence.",
        "Geometry and separability say where permuted examples come apart, the others which layers hold what was memorized: "
        "compare the methods of one question.",
    ),
    "depth": Figure(
        "the shares of the layers by every method, on one axis of depth (manigeo localize)",
        "Every method on one axis",
        "The share of each layer, in percent, in what each method sees of memorization, from the first layer with "
        "parameters to the last. Boxes mark the layers that a method names; the line is its centre of mass with a 95 % "
        "interval. Methods in brackets, paler, do not have enough evidence, and name none.",
        "Above the line are the methods that say where permuted examples come apart, below it those that say which layers "
        "hold what was memorized: compare within each.",
    ),
    "gradients": Figure(
        "the label-dependent and the label-independent part of the gradient, one panel per layer (manigeo gradients)",
        "Parts of the gradient",
        "Norms of the label-dependent and of the label-independent part of the gradient, and the cosine with "
        "the gradient of unpermuted examples, over epochs; one column per layer, one line per kind.",
        "Examples that agree on where to push a layer have a large label-dependent part; those that contradict one "
        "another have a small one. Check when, and at which layers, that of permuted examples approaches the others'.",
    ),
    "gradient-sizes": Figure(
        "norms of these parts against the number of examples (manigeo gradients --sizes)",
        "The gradient against the number of examples",
        "Norms of the two parts of the gradient against the number of examples, both logarithmic; one column per layer, "
        "one line per kind. The dashed line falls as chance does.",
        "A line that falls with the dashed one is noise that averages out; a level one is a direction that examples share.",
    ),
}
# metrics that a table has a figure of, whatever else is in it; see manigeo.plots, which is slow to import
# fmt: off
DRAWN = frozenset(
    (
        "capacity", "capacity_joint", "capacity_simulated", "capacity_sweep", "label_dependent_centred_norm",
        "label_dependent_centred_norm_sweep", "accuracy_drop", "accuracy_gain", "channels_to_flip", "profile", "step_angle",
        "gap", "transfer_accuracy", "prefix_accuracy", "lens_accuracy", "criticality", "kmeans_nmi", "knn_purity_1",
        "knn_purity_class", "margin_ovr", "nearest_mean_accuracy", "probe_accuracy", "separation_fuzziness",
        "cka", "procrustes_angle", "latent_linear", "latent_mean", "latent_neighbours", "latent_subspace",
    )
)
# fmt: on

# of a table of single examples
EXAMPLE_FIGURES = {
    "examples": Figure(
        "depths, loads and the data map of single examples (manigeo examples)",
        "Single examples",
        "For each kind, the share of examples with each prediction depth; the accuracy of test examples by their depth; the "
        "mean load of each kind at every layer, 1 being an equal share; the share that has another answer without so many "
        "channels; and confidence against variability over training. Panels whose numbers the table does not hold are left "
        "out.",
        "Examples of large depth come apart late, or never. Where permuted ones carry more than their share of the load, "
        "they limit capacity. Those that few channels flip depend on these alone.",
    ),
    "contact": Figure(
        "images of the most and of the least memorized examples",
        "The most and the least memorized images",
        "Training images as the network saw them, each on its own scale of grey or colour: the most memorized above, the "
        "least memorized below. Above each stands its class, or its true class and the label that it was trained on.",
        "Look for what the network had no other way to know: permuted labels, odd or mislabelled images, duplicates.",
    ),
}
