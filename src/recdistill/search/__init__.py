"""AdaRec: search the student's architecture for the scene while distilling. Chen et al., arXiv:2107.07173."""
