"""DICOM: headers to planes, planes to images, images to voxels."""
