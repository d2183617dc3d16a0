"""What watches a run, one idea a file. Nothing here may change what is trained."""
