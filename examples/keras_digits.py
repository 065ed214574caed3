"""Keras: a network on handwritten digits, its penalties in the history, and a picture of them.

Run it with ``python examples/keras_digits.py``; it needs penalize[keras], a backend, scikit-learn
and matplotlib.
"""

import keras
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from penalize import L1, L2, kernels
from penalize.integrations.keras import PenalizeCallback

x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x / 16, y, random_state=0)
keras.utils.set_random_seed(0)
hidden = layers.Dense(32, activation="relu", name="hidden")
model = keras.Sequential([keras.Input((64,)), hidden, layers.Dense(10)])
rate = keras.optimizers.schedules.CosineDecay(0.02, 220)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])

penalties = PenalizeCallback({kernels: L2(1e-4), "hidden": L1(1e-3)}, mode="proximal")
history = model.fit(x_train, y_train, 128, epochs=20, callbacks=[penalties], verbose=0).history
accuracy = model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]
zeros = history["zeros"][-1]
kernel = keras.ops.convert_to_numpy(hidden.kernel)
print(f"loss {history['loss'][-1]:.4f}, penalty {history['penalty'][-1]:.4f}")
print(f"accuracy {accuracy:.1%}, {zeros:.1%} exact zeros")
figure = penalties.plot()  # figure.savefig("penalties.png")
