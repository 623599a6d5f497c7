"""Spark transforms of the lake's tables: DataFrame in, DataFrame out, no reading and no writing."""
