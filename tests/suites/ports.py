"""Ports of this machine that nothing listens on."""

from benchmarks.servers import free_port, free_ports

__all__ = ["free_port", "free_ports"]
