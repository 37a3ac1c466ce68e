"""What a machine is: its GPUs, driver, compiler and disks, read once and as plain records."""
