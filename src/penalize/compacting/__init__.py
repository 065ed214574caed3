"""What all wings share of compacting: the report; and for chains of layers, what may go."""
