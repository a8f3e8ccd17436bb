"""From what a caller asks to a job: the model and the files that it names, the graph, and the submission."""
