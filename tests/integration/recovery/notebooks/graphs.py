# %% a network
import networkx as nx

g = nx.Graph(name="roads")
g.add_weighted_edges_from([("a", "b", 2), ("b", "c", 1), ("a", "c", 5), ("c", "d", 3)])
# %%
path = nx.shortest_path(g, "a", "d", weight="weight")
data = g.nodes["a"]
data["pos"] = (0, 1)
# %%
d = nx.DiGraph([(1, 2), (2, 3), (1, 3)])
order = list(nx.topological_sort(d))
# %%
sub = g.subgraph(["a", "b", "c"])
ranks = nx.pagerank(d) if False else nx.degree_centrality(d)
# %%
g.remove_edge("a", "c")
seen = sub.number_of_edges()
assert seen == 2 and g.nodes["a"] is data
# %%
adjacency = g.adj
h = g.copy()
h.graph["name"] = "copy"
