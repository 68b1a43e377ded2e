from . import errors as errors
from . import weights as weights
from .activations import create_activations as create_activations
from .activations import open_activations as open_activations
from .capacity import theory as theory
from .capacity.geometry import frame_geometry as frame_geometry
from .capacity.joint import joint_capacity as joint_capacity
from .capacity.mean_field import manifold_capacity as manifold_capacity
from .capacity.sampling import capacity_vs_M as capacity_vs_M
from .capacity.simulated import simulated_capacity as simulated_capacity
from .dimension import total_dimension as total_dimension
from .layerwise import capacity_table as capacity_table
from .layerwise import plan_capacity as plan_capacity
from .manifolds import KINDS as KINDS
from .plots import plot_estimators as plot_estimators
from .plots import plot_geometry as plot_geometry
from .plots import plot_sweep as plot_sweep
from .plots import plot_weights as plot_weights
from .results import read_results as read_results
from .results import write_results as write_results

__version__: str
