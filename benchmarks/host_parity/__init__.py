"""The C++ host beside Python's engine on real texts; no times."""
