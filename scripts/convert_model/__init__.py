"""The parts of scripts/convert-model.py: one file reads folders, one writes, one for each kind of
model says what is what."""
