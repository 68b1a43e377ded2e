"""Training on partly permuted labels, the folder of a run, and how well a network does on the four kinds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "plan": ["TrainingPlan"],
        "trainer": ["memorized", "train"],
        "evaluation": ["evaluate"],
        "recorder": ["Recorder"],
    },
)
