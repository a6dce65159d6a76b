from ray_machines import album, machines, model, slow_server, started

__all__ = ["album", "machines", "model", "slow_server", "started"]
