"""How well embeddings retrieve: ranking, metrics, intervals, whole evaluations, and criteria that need no label.

ranking.py    the kernel: ranks of the relevant items, in blocks of bounded memory
formulas.py   each metric from these ranks, and its expectation under a random order
metrics.py    both put together: scores, chance, intervals, values of each query
intervals.py  bootstrap over queries, and the paired difference of two runs
outcome.py    an evaluation as plain values for JSON
run.py        both directions of embeddings or of a model, with and without centring
sides.py      from rows and results to a row of the table
after.py      what can follow the ranking, by name and settings
scorers.py    the scores that each of these gives
rerank.py     k-reciprocal re-ranking
reciprocal.py its graph of mutual neighbours, in sparse rows
expansion.py  alpha query expansion
hubness.py    hubs, and holding them back: CSLS, inverted softmax
reranked.py   re-ranked rows beside those of an evaluation
variants.py   other papers' mAP and P@k, under names of their own
one_per.py    the gallery of one photo for each sketch
pair_scores.py  scores of all pairs on a fine grid, in blocks
verify.py     TAR@FAR, EER and DET curve over all pairs
open_set.py   FNIR@FPIR: queries that may have no mate
calibrate.py  a threshold for a wanted false-match rate, probabilities of a match
summary.py    mean and standard deviation over runs of repeated splits and seeds
repeats.py    the paired difference of two methods over such runs, with its interval
attributes.py how well an attribute head reads each domain
human.py      agreement with human triplets
probe.py      whether a linear classifier tells two domains apart
criteria.py   which epoch is best, without labels
spread.py     collapse and domain gap
"""
