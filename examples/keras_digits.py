"""Keras: a network on handwritten digits, its penalties logged apart from the loss and drawn.

Run it with ``python examples/keras_digits.py``, on any backend; it needs penalize[keras] beside a
backend, matplotlib and scikit-learn.
"""

import keras
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from penalize import L1, L2, kernels
from penalize.integrations.keras import PenalizeCallback

x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split((x / 16).astype("float32"), y, random_state=0)

keras.utils.set_random_seed(0)
hidden = layers.Dense(32, activation="relu", name="hidden")
model = keras.Sequential([keras.Input((64,)), hidden, layers.Dense(10)])
rate = keras.optimizers.schedules.CosineDecay(0.02, decay_steps=20 * 11)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(rate), loss)

penalties = PenalizeCallback({kernels: L2(1e-4), "hidden": L1(1e-3)}, mode="proximal")
how = {"batch_size": 128, "epochs": 20, "verbose": 0}
history = model.fit(x_train, y_train, callbacks=[penalties], **how).history
for epoch in (9, 19):
    print({name: round(float(history[name][epoch]), 4) for name in sorted(history)})
penalties.plot().savefig("penalties.png")
kernel, zeros = keras.ops.convert_to_numpy(hidden.kernel), float(history["zeros"][-1])
accuracy = float((model.predict(x_test, verbose=0).argmax(1) == y_test).mean())
print(f"accuracy {accuracy:.1%}, {zeros:.1%} exact zeros")
