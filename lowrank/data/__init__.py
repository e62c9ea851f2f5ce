"""What a hat learns from: documents, templates, batches."""
