"""The mathematics of the benchmark: functions of features, without models, files or names."""
