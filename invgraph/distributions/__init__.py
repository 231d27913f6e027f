"""``torch.distributions`` from flows and graphs: conditional densities and transforms, for Pyro as well."""
