"""What the microscope draws: pure functions of tensors and arrays."""
