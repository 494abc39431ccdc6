"""The engine on a GPU: what the driver is asked for, once for all encoders that run there."""
