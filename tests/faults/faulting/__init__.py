"""What injects faults into the verbs of a registry, one system call at a time, and judges what is left."""
