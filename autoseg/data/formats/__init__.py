"""Files to voxels and a grid, one module a format; `readers` knows which. Grids are made by the same rules for all, in `placing`."""
