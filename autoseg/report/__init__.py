"""Pictures of results; whoever looks judges with his eyes what the tables say in numbers."""

from autoseg.report.curves import draw_boxes, draw_loss_curves
from autoseg.report.pictures import Slice, draw_montage, slices_of

__all__ = ["Slice", "draw_boxes", "draw_loss_curves", "draw_montage", "slices_of"]
