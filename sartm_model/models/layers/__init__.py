"""Parts that several families of networks have in common."""
