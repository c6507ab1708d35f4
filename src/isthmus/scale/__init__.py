"""The same jobs on a Ray cluster: `isthmus.scale.cluster` embeds images of any number into a catalog."""
