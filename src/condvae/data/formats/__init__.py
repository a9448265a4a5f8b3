"""One small module for each layout that pictures come in.

torchvision has loaders for CIFAR-10, MNIST, Fashion-MNIST and CelebA. None is used here: they refuse
every file but the complete official ones (so neither a part of a data set nor a stand-in can be
read), check by assertions, hold all pictures in memory, ask for files that are not needed (CelebA's
boxes, landmarks and identities), read IDX files only unpacked and below folders of their own, and
unpickle CIFAR-10 without restriction once its MD5 fits. The MD5 sums they publish are compared here
too (`checksums`); another file is read all the same, and named in the log.
"""
