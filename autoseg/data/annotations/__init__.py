"""Files that name what they outline, as 3D Slicer, DICOM-SEG and RTSTRUCT do, to label maps. Reading starts at `reading`."""
