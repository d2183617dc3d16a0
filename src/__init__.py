"""Unroll: recurrent networks on character sequences, from five characters to whole books."""
